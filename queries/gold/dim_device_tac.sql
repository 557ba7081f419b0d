-- Devices by their type allocation code, the first 8 digits of an IMEI.
select
    md5(tac_code) as tac_id,
    manufacturer,
    tac_code
from {{ ref('silver_device_tacs') }}
