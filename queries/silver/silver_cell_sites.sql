-- Cell sites as of their newest load.
with loads as (

    select
        {{ text('parsed_data.cell_id') }}   as cell_id,
        {{ text('parsed_data.city') }}      as city,
        {{ text('parsed_data.site_name') }} as site_name,
        parsed_data.latitude                as latitude,
        parsed_data.longitude               as longitude,
        partition,
        offset
    from {{ ref('bronze_cell_sites') }}
    where parsed_data is not null

)

select cell_id, city, site_name, latitude, longitude
from loads
where cell_id is not null
qualify row_number() over (partition by cell_id order by partition desc, offset desc) = 1
