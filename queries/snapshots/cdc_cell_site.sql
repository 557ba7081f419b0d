-- Cell sites as they were and are: a site that moves or is renamed is a new version.
{% snapshot cdc_cell_site %}

{{ config(
    unique_key='site_id',
    strategy='check',
    check_cols=['city', 'latitude', 'longitude', 'site_name'],
) }}

select
    md5(cell_id) as site_id,
    cell_id,
    city,
    site_name,
    latitude,
    longitude,
    now() as snapshot_timestamp
from {{ ref('silver_cell_sites') }}

{% endsnapshot %}
