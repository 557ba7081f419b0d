-- Type allocation codes of devices as of their newest load.
with loads as (

    select
        {{ text('parsed_data.tac_code') }}     as tac_code,
        {{ text('parsed_data.manufacturer') }} as manufacturer,
        partition,
        offset
    from {{ ref('bronze_device_tacs') }}
    where parsed_data is not null

)

select tac_code, manufacturer
from loads
where tac_code is not null
qualify row_number() over (partition by tac_code order by partition desc, offset desc) = 1
