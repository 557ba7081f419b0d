-- Every load of the device codes as it arrived.
select
    _key             as key,
    _timestamp       as timestamp,
    _topic           as topic,
    _partition       as partition,
    _offset          as offset,
    _processing_time as processing_time,
    raw_data,
    raw_bytes,
    parsed_data,
    _error
from STREAM {{ source('reference', 'device_tacs') }}
