-- Cell sites, as they are now.
select
    md5(cell_id) as site_id,
    cell_id,
    city,
    site_name,
    latitude,
    longitude
from {{ ref('silver_cell_sites') }}
