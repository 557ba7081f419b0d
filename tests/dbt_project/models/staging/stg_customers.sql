select customer_id, name, {{ country_of('country') }} as country_code
from {{ source('raw', 'customers') }}
