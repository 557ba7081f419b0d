-- A streaming table: each record of the source is processed once.
select id, customer, product, quantity, price, ordered_at
from {{ source('shop', 'orders') }}
