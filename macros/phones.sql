{# A phone number as it would be dialled: no spaces or punctuation, the user of a sip: address, + instead of 00. #}
{% macro dialled(number) -%}
regexp_replace(split_part(replace(translate({{ number }}, ' -.()', ''), 'sip:', ''), '@', 1), '^00', '+')
{%- endmacro %}

{# The E.164 form (+201069334417) of a dialled number; NULL when it is no phone number. #}
{% macro e164(dialled) -%}
case
        when {{ dialled }} ~ '^01[0125][0-9]{8}$' then '+2' || {{ dialled }}     -- Egyptian, national
        when {{ dialled }} ~ '^[+][0-9]{8,15}$' then {{ dialled }}
        when {{ dialled }} ~ '^20[0-9]{10}$' then '+' || {{ dialled }}           -- Egyptian, without the plus
        when {{ dialled }} ~ '^1[2-9][0-9]{9}$' then '+' || {{ dialled }}        -- North American, without the plus
    end
{%- endmacro %}

{# The operator that an Egyptian E.164 number was issued by. #}
{% macro operator(phone) -%}
case left({{ phone }}, 5)
        when '+2010' then 'Vodafone'
        when '+2011' then 'Etisalat'
        when '+2012' then 'Orange'
        when '+2015' then 'WE'
    end
{%- endmacro %}
