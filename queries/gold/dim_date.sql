-- One row per day on which anything happened.
with dates as (

    select event_date from {{ ref('silver_call_events') }}
    union
    select event_date from {{ ref('silver_sms_events') }}

)

select
    {{ date_key('event_date') }}                     as date_key,
    event_date                                       as full_date,
    cast(extract(day from event_date) as int)        as day,
    cast(extract(month from event_date) as int)      as month,
    cast(extract(year from event_date) as int)       as year,
    cast(extract(quarter from event_date) as int)    as quarter,
    cast(extract(dow from event_date) as int)        as day_of_week,      -- 0 is Sunday
    cast(extract(doy from event_date) as int)        as day_of_year,
    to_char(event_date, '%A')                        as day_name,
    to_char(event_date, '%B')                        as month_name,
    'Q' || cast(extract(quarter from event_date) as string) as quarter_name
from dates
