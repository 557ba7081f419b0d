-- The fact: one row per call or message, with keys to its dimensions. A key is NULL where the reference data does not know
-- the phone, the cell site or the device.
with events as (

    select
        event_type, sid, event_timestamp, status, amount, currency,
        sender_e164, receiver_e164, sender_cell_site, receiver_cell_site, sender_plan_type, receiver_plan_type,
        left(sender_imei, 8)   as sender_tac,
        left(receiver_imei, 8) as receiver_tac,
        call_duration_seconds,
        call_type,
        cast(null as date)     as registration_date
    from {{ ref('silver_call_events') }}

    union all

    select
        event_type, sid, event_timestamp, status, amount, currency,
        sender_e164, receiver_e164, sender_cell_site, receiver_cell_site, sender_plan_type, receiver_plan_type,
        left(sender_imei, 8)   as sender_tac,
        left(receiver_imei, 8) as receiver_tac,
        cast(null as int)      as call_duration_seconds,
        cast(null as string)   as call_type,
        registration_date
    from {{ ref('silver_sms_events') }}

)

select
    md5(events.event_type || events.sid) as event_id,
    events.event_type,
    events.event_timestamp,
    sender.user_id                       as sender_id,
    receiver.user_id                     as receiver_id,
    sender_site.site_id                  as sender_site_id,
    receiver_site.site_id                as receiver_site_id,
    sender_device.tac_id                 as sender_device_id,
    receiver_device.tac_id               as receiver_device_id,
    {{ date_key('events.event_timestamp') }} as date_key,
    {{ time_key('events.event_timestamp') }} as time_key,
    events.sender_plan_type              as plan_sender,
    events.receiver_plan_type            as receiver_plan,
    events.call_duration_seconds,
    events.call_type,
    events.status,
    events.currency,
    events.registration_date             as reg_date,
    events.amount
from events
left join {{ ref('dim_user') }} as sender on sender.phone_number = events.sender_e164
left join {{ ref('dim_user') }} as receiver on receiver.phone_number = events.receiver_e164
left join {{ ref('dim_cell_site') }} as sender_site on sender_site.cell_id = events.sender_cell_site
left join {{ ref('dim_cell_site') }} as receiver_site on receiver_site.cell_id = events.receiver_cell_site
left join {{ ref('dim_device_tac') }} as sender_device on sender_device.tac_code = events.sender_tac
left join {{ ref('dim_device_tac') }} as receiver_device on receiver_device.tac_code = events.receiver_tac
