{{ config(tags=['quality']) }}
select customer_id
from {{ ref('orders_per_customer') }}
where amount < 0
