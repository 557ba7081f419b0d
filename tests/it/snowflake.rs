//! An incremental model as it is written for dbt on Snowflake, unchanged, run by run under `dialect: snowflake`.

use crate::support::Sandbox;

const MODEL: &str = "\
{{
    config(
        materialized='incremental',
        unique_key='call_id',
        indexes=[{'columns': ['call_id'], 'unique': true}],
        target_schema='silver',
        tags=['nightly']
    )
}}

WITH voice AS (
    SELECT
        sid::varchar                                                AS call_id,
        'voice'                                                     AS channel,
        NVL(caller, 'unknown')                                      AS caller,
        TO_TIMESTAMP(started, 'DD-MM-YYYY HH24:MI:SS')              AS started_at,
        ZEROIFNULL(seconds)                                         AS seconds,
        DECODE(state, 'OK', 'answered', 'NA', 'missed', 'other')    AS outcome
    FROM {{ source('telco', 'voice') }}
),

video AS (
    SELECT
        sid::varchar                                                AS call_id,
        'video'                                                     AS channel,
        NVL(caller, 'unknown')                                      AS caller,
        TO_TIMESTAMP(started, 'DD-MM-YYYY HH24:MI:SS')              AS started_at,
        ZEROIFNULL(seconds)                                         AS seconds,
        IFF(state ILIKE 'ok%', 'answered', 'missed')                AS outcome
    FROM {{ source('telco', 'video') }}
),

calls AS (
    SELECT * FROM voice
    UNION
    SELECT * FROM video
)

SELECT
    call_id,
    channel,
    caller,
    started_at,
    seconds,
    outcome,
    TO_CHAR(started_at, 'YYYY-MM-DD HH24:MI')                       AS started_text,
    TO_DATE(TO_CHAR(started_at, 'YYYY-MM-DD'), 'YYYY-MM-DD')        AS started_on,
    DATEADD(day, 1, started_at)::date                               AS billed_on,
    DATEDIFF('minute', '2026-01-01'::timestamp, started_at)         AS minute_of_year,
    SPLIT_PART(caller, '@', 1)                                      AS caller_name,
    DIV0(seconds, 60)                                               AS minutes
FROM calls
{% if is_incremental() %}
WHERE started_at > (SELECT NVL(MAX(started_at), '1970-01-01'::timestamp) FROM {{ this }})
{% endif %}
QUALIFY ROW_NUMBER() OVER (PARTITION BY call_id ORDER BY started_at DESC) = 1
";

fn project() -> Sandbox {
    let columns = "[{name: sid, data_type: BIGINT}, {name: caller, data_type: STRING}, {name: started, data_type: STRING}, \
                   {name: seconds, data_type: BIGINT}, {name: state, data_type: STRING}]";
    let sources = format!(
        "version: 2\nsources:\n  - name: telco\n    config: {{connector: files, format: json}}\n    tables:\n      \
         - {{name: voice, config: {{path: data/voice}}, columns: {columns}}}\n      \
         - {{name: video, config: {{path: data/video}}, columns: {columns}}}\n"
    );
    Sandbox::with(&[
        (
            "smelt.yml",
            "name: telecom\ndialect: snowflake\ntarget: dev\ntargets:\n  dev: {lake: ./lake, commit_interval: 100ms}\n",
        ),
        ("models/sources.yml", &sources),
        ("queries/fct_calls.sql", MODEL),
        (
            "queries/calls_per_caller.sql",
            "SELECT caller, LISTAGG(channel, ',') WITHIN GROUP (ORDER BY started_at) AS channels, COUNT_IF(outcome = 'answered') AS answered\n\
             FROM {{ ref('fct_calls') }} GROUP BY caller",
        ),
    ])
}

fn held(sandbox: &Sandbox) -> Vec<String> {
    let row = "call_id || ' ' || channel || ' ' || caller_name || ' ' || started_text || ' ' || outcome || ' ' || to_char(billed_on, 'DD') \
               || ' ' || minute_of_year::varchar || ' ' || minutes::varchar";
    let rows = sandbox.rows(&format!("select {row} as r from fct_calls order by call_id"));
    rows.into_iter().map(|r| r.trim_start_matches("{\"r\":\"").trim_end_matches("\"}").to_string()).collect()
}

#[test]
fn an_incremental_model_written_for_snowflake_runs_unchanged() {
    let sandbox = project();
    sandbox.write(
        "data/voice/1.json",
        "{\"sid\": 1, \"caller\": \"mona@eg\", \"started\": \"01-01-2026 00:10:00\", \"seconds\": 90, \"state\": \"OK\"}\n\
         {\"sid\": 2, \"started\": \"01-01-2026 00:20:00\", \"state\": \"NA\"}\n",
    );
    sandbox.write(
        "data/video/1.json",
        "{\"sid\": 3, \"caller\": \"mona@eg\", \"started\": \"01-01-2026 00:30:00\", \"seconds\": 30, \"state\": \"ok!\"}\n",
    );
    sandbox.smelt(&["compile"]).ok();
    sandbox.smelt(&["run"]).ok();
    assert_eq!(
        held(&sandbox),
        [
            "1 voice mona 2026-01-01 00:10 answered 02 10 1.500000",
            "2 voice unknown 2026-01-01 00:20 missed 02 20 0.000000",
            "3 video mona 2026-01-01 00:30 answered 02 30 0.500000",
        ]
    );
    // Newer than what the table holds: one call again, with another outcome, and one that is late and left out.
    sandbox.write(
        "data/voice/2.json",
        "{\"sid\": 2, \"caller\": \"omar@eg\", \"started\": \"01-01-2026 01:00:00\", \"seconds\": 60, \"state\": \"OK\"}\n\
         {\"sid\": 9, \"caller\": \"late@eg\", \"started\": \"01-01-2026 00:05:00\", \"seconds\": 60, \"state\": \"OK\"}\n",
    );
    sandbox.smelt(&["run"]).ok();
    assert_eq!(
        held(&sandbox),
        [
            "1 voice mona 2026-01-01 00:10 answered 02 10 1.500000",
            "2 voice omar 2026-01-01 01:00 answered 02 60 1.000000",
            "3 video mona 2026-01-01 00:30 answered 02 30 0.500000",
        ]
    );
    let callers = sandbox
        .rows("select caller || ' ' || channels || ' ' || answered::varchar as r from calls_per_caller order by 1");
    assert_eq!(callers, ["{\"r\":\"mona@eg voice,video 2\"}", "{\"r\":\"omar@eg voice 1\"}"]);
}
