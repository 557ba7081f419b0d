-- The 1440 minutes of a day.
with minutes as (

    select
        cast(value / 60 as int) as hour,
        cast(value % 60 as int) as minute
    from generate_series(0, 1439)

)

select
    hour * 100 + minute as time_key,
    hour                as hour_24,
    minute,
    lpad(cast(hour as string), 2, '0') || ':' || lpad(cast(minute as string), 2, '0') as hour_minute,
    lpad(cast((hour + 11) % 12 + 1 as string), 2, '0') || case when hour < 12 then ' AM' else ' PM' end as hour_am_pm
from minutes
