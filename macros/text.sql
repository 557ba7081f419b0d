{# Text without the spaces around it; NULL when nothing is left. #}
{% macro text(column) -%}
nullif(trim({{ column }}), '')
{%- endmacro %}
