{{
    config(
        materialized='incremental',
        unique_key='order_id',
        incremental_strategy='delete+insert',
        on_schema_change='append_new_columns',
        tags=['incremental']
    )
}}

select order_id, customer_id, amount, status, ordered_at
from {{ ref('stg_orders') }}
where ordered_at >= (select min(first_day) from {{ ref('shop_utils', 'util_days') }})

{% if is_incremental() %}
  and ordered_at > (select max(ordered_at) from {{ this }})
{% endif %}
