-- Calls and messages of silver that the fact lacks or has more than once.
select silver.event_id, count(fact.event_id) as copies
from (
    select md5(event_type || sid) as event_id from {{ ref('silver_call_events') }}
    union all
    select md5(event_type || sid) as event_id from {{ ref('silver_sms_events') }}
) as silver
left join {{ ref('fact_events') }} as fact on fact.event_id = silver.event_id
group by silver.event_id
having count(fact.event_id) <> 1
