-- Users whose totals in gold_user_360 are not those of the fact.
select users.user_id
from {{ ref('gold_user_360') }} as users
left join (
    select sender_id, count(*) as events, sum(amount) as amount
    from {{ ref('fact_events') }}
    group by sender_id
) as fact on fact.sender_id = users.user_id
where users.calls + users.messages <> coalesce(fact.events, 0)
   or users.amount <> coalesce(fact.amount, 0)
