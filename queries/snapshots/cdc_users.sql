-- Users as they were and are: a change of city or mail address is a new version. Corrections of a name are not.
{% snapshot cdc_users %}

{{ config(
    unique_key='user_id',
    strategy='check',
    check_cols=['city', 'email'],
) }}

select
    md5(phone_e164) as user_id,
    first_name,
    last_name,
    phone_e164 as phone_number,
    city,
    email,
    sex,
    {{ operator('phone_e164') }} as operator,
    now() as snapshot_timestamp
from {{ ref('silver_event_users') }}
where first_name is not null
  and last_name is not null
  and city is not null

{% endsnapshot %}
