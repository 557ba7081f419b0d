-- Every user with what he or she sent altogether; 0 where nothing was.
with totals as (

    select
        user_id,
        sum(calls)    as calls,
        sum(messages) as messages,
        sum(seconds)  as seconds,
        sum(amount)   as amount
    from {{ ref('gold_user_daily') }}
    group by user_id

)

select
    users.user_id,
    users.first_name,
    users.last_name,
    users.phone_number,
    users.city,
    users.email,
    users.sex,
    users.operator,
    coalesce(totals.calls, 0)    as calls,
    coalesce(totals.messages, 0) as messages,
    coalesce(totals.seconds, 0)  as seconds,
    cast(coalesce(totals.amount, 0) as decimal(20, 2)) as amount
from {{ ref('dim_user') }} as users
left join totals on totals.user_id = users.user_id
