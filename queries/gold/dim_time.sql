-- The 1440 minutes of a day.
with minutes as (

    select
        cast(value / 60 as int) as hour,
        cast(value % 60 as int) as minute
    from generate_series(0, 1439)

)

select
    cast(hour * 100 + minute as int) as time_key,
    hour                             as hour_24,
    minute,
    {{ two_digits('hour') }} || ':' || {{ two_digits('minute') }} as hour_minute,
    {{ two_digits('(hour + 11) % 12 + 1') }} || case when hour < 12 then ' AM' else ' PM' end as hour_am_pm
from minutes
