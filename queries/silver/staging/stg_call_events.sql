-- Call events flattened and normalised, with raw_data and coordinates: rows that violate an expectation (models/silver.yml)
-- are set aside in stg_call_events__quarantine and can be traced to their record.
with flattened as (

    select
        {{ text('parsed_data.event_type') }}     as event_type,
        {{ text('parsed_data.sid') }}            as sid,
        try_to_timestamp(parsed_data.timestamp, 'DD-MM-YYYY HH24:MI:SS') as event_timestamp,

        {{ text('parsed_data.from.number') }}    as sender_number,
        {{ dialled('parsed_data.from.number') }} as sender_dialled,
        {{ text('parsed_data.from.imei') }}      as sender_imei,
        {{ text('parsed_data.from.plan_type') }} as sender_plan_type,
        {{ text('parsed_data.from.cell_site') }} as sender_cell_site,
        parsed_data.from.customer_id             as sender_customer_id,

        {{ text('parsed_data.to.number') }}      as receiver_number,
        {{ dialled('parsed_data.to.number') }}   as receiver_dialled,
        {{ text('parsed_data.to.imei') }}        as receiver_imei,
        {{ text('parsed_data.to.plan_type') }}   as receiver_plan_type,
        {{ text('parsed_data.to.cell_site') }}   as receiver_cell_site,
        parsed_data.to.customer_id               as receiver_customer_id,

        parsed_data.call_duration_seconds        as call_duration_seconds,
        {{ text('parsed_data.call_type') }}      as call_type,
        {{ text('parsed_data.status') }}         as status,
        parsed_data.billing_info.amount          as amount,
        {{ text('parsed_data.billing_info.currency') }} as currency,

        _error                                   as parse_error,
        raw_data,
        raw_bytes,
        topic,
        partition,
        offset,
        timestamp
    from STREAM {{ ref('bronze_call_events') }}

)

select
    event_type,
    sid,
    event_timestamp,
    cast(event_timestamp as date) as event_date,

    sender_number,
    {{ e164('sender_dialled') }} as sender_e164,
    sender_imei,
    sender_plan_type,
    sender_cell_site,
    sender_customer_id,

    receiver_number,
    {{ e164('receiver_dialled') }} as receiver_e164,
    receiver_imei,
    receiver_plan_type,
    receiver_cell_site,
    receiver_customer_id,

    call_duration_seconds,
    call_type,
    status,
    amount,
    currency,

    parse_error,
    raw_data,
    raw_bytes,
    topic,
    partition,
    offset,
    timestamp
from flattened
