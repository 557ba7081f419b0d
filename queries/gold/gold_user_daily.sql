-- What each known user sent on each day.
select
    sender_id                                            as user_id,
    cast(event_timestamp as date)                        as event_date,
    count(*) filter (where event_type = 'call')          as calls,
    count(*) filter (where event_type = 'sms')           as messages,
    coalesce(sum(cast(call_duration_seconds as bigint)), 0) as seconds,
    cast(sum(amount) as decimal(20, 2))                  as amount
from {{ ref('fact_events') }}
where sender_id is not null
group by sender_id, cast(event_timestamp as date)
