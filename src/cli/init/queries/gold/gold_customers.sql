-- Only the customers of new orders are touched when orders arrive: `smelt explain gold_customers` says how.
select
  customer,
  count(*) as orders,
  sum(amount) as revenue,
  max(ordered_at) as last_order_at
from {{ ref('silver_orders') }}
group by customer
