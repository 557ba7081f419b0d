{% test multiple_of_cent(model, column_name) %}
select * from {{ model }} where {{ column_name }} * 100 <> round({{ column_name }} * 100)
{% endtest %}
