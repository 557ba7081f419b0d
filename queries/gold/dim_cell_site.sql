-- Cell sites as of the last snapshot.
select
    site_id,
    cell_id,
    city,
    site_name,
    latitude,
    longitude
from {{ ref('cdc_cell_site') }}
where dbt_valid_to is null
