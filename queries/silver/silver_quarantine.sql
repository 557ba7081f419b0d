-- Every event that an expectation set aside: which kind, why, and where its record came from.
{{ config(materialized='view') }}

select 'call_events' as entity, reason, topic, partition, offset, timestamp, raw_data
from {{ source('rejects', 'stg_call_events__quarantine') }}

union all

select 'sms_events' as entity, reason, topic, partition, offset, timestamp, raw_data
from {{ source('rejects', 'stg_sms_events__quarantine') }}
