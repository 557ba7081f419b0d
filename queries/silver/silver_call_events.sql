-- One row per call event: of records sent twice, the first.
select
    event_type,
    sid,
    event_timestamp,
    event_date,

    sender_number,
    sender_e164,
    sender_imei,
    sender_plan_type,
    sender_cell_site,
    sender_customer_id,

    receiver_number,
    receiver_e164,
    receiver_imei,
    receiver_plan_type,
    receiver_cell_site,
    receiver_customer_id,

    call_duration_seconds,
    call_type,
    status,
    amount,
    currency,

    topic,
    partition,
    offset
from {{ ref('stg_call_events') }}
qualify row_number() over (partition by sid order by partition, offset) = 1
