{# Text without the spaces around it; NULL when nothing is left. #}
{% macro text(column) -%}
nullif(trim({{ column }}), '')
{%- endmacro %}

{# A number from 0 to 99 with two digits. #}
{% macro two_digits(number) -%}
lpad(cast({{ number }} as string), 2, '0')
{%- endmacro %}
