select
    c.customer_id,
    c.name,
    k.country_name,
    count(o.order_id) as orders,
    sum(o.amount) as amount
from {{ ref('stg_customers') }} c
left join {{ ref('stg_orders') }} o on o.customer_id = c.customer_id
left join {{ ref('countries') }} k on k.country_code = c.country_code
group by c.customer_id, c.name, k.country_name
