-- Every message event as it arrived, malformed ones too: nothing is filtered, nothing is cast.
select
    _key             as key,
    _timestamp       as timestamp,
    _topic           as topic,
    _partition       as partition,
    _offset          as offset,
    _processing_time as processing_time,
    raw_data,
    raw_bytes,
    parsed_data,
    _error
from STREAM {{ source('telco', 'sms_event') }}
