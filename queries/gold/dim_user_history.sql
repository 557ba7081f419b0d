-- Every version of every user. `fact_events` joins it on user_id and a time between valid_from and valid_to to ask who somebody was then.
select
    dbt_scd_id           as version_id,
    user_id,
    first_name,
    last_name,
    phone_number,
    city,
    email,
    sex,
    operator,
    dbt_valid_from       as valid_from,
    dbt_valid_to         as valid_to,
    dbt_valid_to is null as is_current
from {{ ref('cdc_users') }}
