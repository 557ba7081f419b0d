-- One row per message: of records sent twice, the first.
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

    body,
    registration_date,
    status,
    amount,
    currency,

    topic,
    partition,
    offset
from {{ ref('stg_sms_events') }}
qualify row_number() over (partition by sid order by partition, offset) = 1
