-- Users, as they are now.
select
    md5(phone_e164) as user_id,
    first_name,
    last_name,
    phone_e164 as phone_number,
    city,
    email,
    sex,
    {{ operator('phone_e164') }} as operator
from {{ ref('silver_event_users') }}
where first_name is not null
  and last_name is not null
  and city is not null
