-- Users as of the last snapshot.
select
    user_id,
    first_name,
    last_name,
    phone_number,
    city,
    email,
    sex,
    operator
from {{ ref('cdc_users') }}
where dbt_valid_to is null
