-- Users as of their newest load, one row per phone in E.164 form. A load is a file, and files count up in `partition`.
with loads as (

    select
        {{ text('parsed_data.phone_number') }}    as phone_number,
        {{ dialled('parsed_data.phone_number') }} as dialled,
        {{ text('parsed_data.first_name') }}      as first_name,
        {{ text('parsed_data.last_name') }}       as last_name,
        {{ text('parsed_data.email') }}           as email,
        {{ text('parsed_data.sex') }}             as sex,
        parsed_data.age                           as age,
        {{ text('parsed_data.city') }}            as city,
        parsed_data.customer_id                   as customer_id,
        {{ text('parsed_data.plan_type') }}       as plan_type,
        {{ text('parsed_data.status') }}          as status,
        partition,
        offset
    from {{ ref('bronze_event_users') }}
    where parsed_data is not null

),

phones as (

    select *, {{ e164('dialled') }} as phone_e164
    from loads

)

select
    phone_number,
    phone_e164,
    first_name,
    last_name,
    email,
    sex,
    age,
    city,
    customer_id,
    plan_type,
    status
from phones
where phone_e164 is not null
qualify row_number() over (partition by phone_e164 order by partition desc, offset desc) = 1
