{# YYYYMMDD as a number: the key of dim_date. #}
{% macro date_key(day) -%}
cast(extract(year from {{ day }}) * 10000 + extract(month from {{ day }}) * 100 + extract(day from {{ day }}) as int)
{%- endmacro %}

{# HHMM as a number: the key of dim_time. #}
{% macro time_key(instant) -%}
cast(extract(hour from {{ instant }}) * 100 + extract(minute from {{ instant }}) as int)
{%- endmacro %}
