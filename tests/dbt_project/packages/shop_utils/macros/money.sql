{% macro units(column, scale=2) -%}
  {{ adapter.dispatch('units', 'shop_utils')(column, scale) }}
{%- endmacro %}

{% macro default__units(column, scale) -%}
  round({{ column }} / {{ var('cents_per_unit', 100) }}.0, {{ scale }})
{%- endmacro %}

{% macro duckdb__units(column, scale) -%}
  cast({{ column }} / {{ var('cents_per_unit', 100) }}.0 as decimal(18, {{ scale }}))
{%- endmacro %}
