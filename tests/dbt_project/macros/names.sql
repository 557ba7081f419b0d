{# Staging tables keep the target's schema; the others get their own beside it. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
  {%- if custom_schema_name is none -%}
    {{ target.schema }}
  {%- else -%}
    {{ target.schema }}_{{ custom_schema_name | trim }}
  {%- endif -%}
{%- endmacro %}

{% macro country_of(column) -%}
  upper(trim({{ column }}))
{%- endmacro %}
