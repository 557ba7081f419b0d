with source as (

    select * from {{ source('raw', 'orders') }}

),

renamed as (

    select
        order_id,
        customer_id,
        {{ shop_utils.units('amount_cents') }} as amount,
        status,
        ordered_at
    from source

)

select * from renamed
where amount >= {{ var('minimum_amount') }}
