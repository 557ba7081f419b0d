select cast('{{ var("first_day") }}' as date) as first_day, {{ var('cents_per_unit') }} as cents_per_unit
