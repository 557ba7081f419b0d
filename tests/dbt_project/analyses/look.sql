select status, count(*) as orders from {{ ref('order_events') }} group by status
