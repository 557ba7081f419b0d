-- A materialized view: it always equals this query. Its expectation stands in models/shop.yml.
select
  id,
  customer,
  product,
  quantity,
  quantity * price as amount,
  ordered_at,
  cast(ordered_at as date) as order_date
from {{ ref('bronze_orders') }}
