-- Nexmark's queries as views over src.person, src.auction, src.bid and src.side_input. `-- qN: name` begins each.
-- Event time takes the place of processing time (q12), a view that of a file sink (q10).

-- q0: pass through
select auction, bidder, price, date_time, extra from src.bid

-- q1: currency conversion
select auction, bidder, cast(0.908 as decimal(4, 3)) * price as price, date_time, extra from src.bid

-- q2: selection
select auction, price from src.bid where auction % 123 = 0

-- q3: local item suggestion
select p.name, p.city, p.state, a.id
from src.auction as a
join src.person as p on a.seller = p.id
where a.category = 10 and p.state in ('OR', 'ID', 'CA')

-- q4: average price for a category
select category, avg(final) as average
from (
  select a.id, a.category, max(b.price) as final
  from src.auction as a
  join src.bid as b on a.id = b.auction
  where b.date_time between a.date_time and a.expires
  group by a.id, a.category
) as closed
group by category

-- q5: hot items
with counts as (
  select auction, window_start, count(*) as num
  from hop(src.bid, date_time, interval '2 seconds', interval '10 seconds')
  group by auction, window_start
),
most as (select window_start, max(num) as num from counts group by window_start)
select c.auction, c.num, c.window_start
from counts as c
join most as m on c.window_start = m.window_start and c.num >= m.num

-- q6: average selling price by seller
select seller, price, avg(price) over (
  partition by seller order by date_time, id rows between 10 preceding and current row
) as average
from (
  select a.id, a.seller, b.price, b.date_time,
    row_number() over (partition by a.id, a.seller order by b.price desc, b.date_time) as place
  from src.auction as a
  join src.bid as b on a.id = b.auction
  where b.date_time between a.date_time and a.expires
) as won
where place = 1

-- q7: highest bid
with most as (
  select window_start, max(price) as price from tumble(src.bid, date_time, interval '10 seconds') group by window_start
)
select b.auction, b.price, b.bidder, b.date_time, b.extra
from tumble(src.bid, date_time, interval '10 seconds') as b
join most as m on b.price = m.price and b.window_start = m.window_start

-- q8: monitor new users
with persons as (
  select id, name, window_start from tumble(src.person, date_time, interval '10 seconds') group by 1, 2, 3
),
sellers as (
  select seller, window_start from tumble(src.auction, date_time, interval '10 seconds') group by 1, 2
)
select p.id, p.name, p.window_start
from persons as p
join sellers as s on p.id = s.seller and p.window_start = s.window_start

-- q9: winning bids
select id, item_name, description, initial_bid, reserve, date_time, expires, seller, category, extra,
  auction, bidder, price, bid_date_time, bid_extra
from (
  select a.*, b.auction, b.bidder, b.price, b.date_time as bid_date_time, b.extra as bid_extra,
    row_number() over (partition by a.id order by b.price desc, b.date_time) as place
  from src.auction as a
  join src.bid as b on a.id = b.auction
  where b.date_time between a.date_time and a.expires
) as bids
where place = 1

-- q10: log to file system
select auction, bidder, price, date_time, extra,
  to_char(date_time, 'YYYY-MM-DD') as dt, to_char(date_time, 'HH24:MI') as hm
from src.bid

-- q11: user sessions
select bidder, count(*) as bid_count, window_start, window_end
from session(src.bid, date_time, interval '10 seconds', bidder)
group by bidder, window_start, window_end

-- q12: windows by bidder
select bidder, window_start, count(*) as bid_count
from tumble(src.bid, date_time, interval '10 seconds')
group by bidder, window_start

-- q13: bounded side input join
select b.auction, b.bidder, b.price, b.date_time, s.value
from src.bid as b
join src.side_input as s on b.auction % 10000 = s.key

-- q14: calculation
select auction, bidder, cast(0.908 as decimal(4, 3)) * price as price,
  case
    when date_part('hour', date_time) between 8 and 18 then 'dayTime'
    when date_part('hour', date_time) <= 6 or date_part('hour', date_time) >= 20 then 'nightTime'
    else 'otherTime'
  end as bid_time_type,
  date_time, extra,
  length(extra) - length(replace(extra, 'c', '')) as c_counts
from src.bid
where cast(0.908 as decimal(4, 3)) * price > 1000000 and cast(0.908 as decimal(4, 3)) * price < 50000000

-- q15: bidding statistics
select to_char(date_time, 'YYYY-MM-DD') as day,
  count(*) as total_bids,
  count(*) filter (where price < 10000) as rank1_bids,
  count(*) filter (where price >= 10000 and price < 1000000) as rank2_bids,
  count(*) filter (where price >= 1000000) as rank3_bids,
  count(distinct bidder) as total_bidders,
  count(distinct bidder) filter (where price < 10000) as rank1_bidders,
  count(distinct bidder) filter (where price >= 10000 and price < 1000000) as rank2_bidders,
  count(distinct bidder) filter (where price >= 1000000) as rank3_bidders,
  count(distinct auction) as total_auctions,
  count(distinct auction) filter (where price < 10000) as rank1_auctions,
  count(distinct auction) filter (where price >= 10000 and price < 1000000) as rank2_auctions,
  count(distinct auction) filter (where price >= 1000000) as rank3_auctions
from src.bid
group by 1

-- q16: channel statistics
select channel, to_char(date_time, 'YYYY-MM-DD') as day,
  max(to_char(date_time, 'HH24:MI')) as minute,
  count(*) as total_bids,
  count(*) filter (where price < 10000) as rank1_bids,
  count(*) filter (where price >= 10000 and price < 1000000) as rank2_bids,
  count(*) filter (where price >= 1000000) as rank3_bids,
  count(distinct bidder) as total_bidders,
  count(distinct bidder) filter (where price < 10000) as rank1_bidders,
  count(distinct bidder) filter (where price >= 10000 and price < 1000000) as rank2_bidders,
  count(distinct bidder) filter (where price >= 1000000) as rank3_bidders,
  count(distinct auction) as total_auctions,
  count(distinct auction) filter (where price < 10000) as rank1_auctions,
  count(distinct auction) filter (where price >= 10000 and price < 1000000) as rank2_auctions,
  count(distinct auction) filter (where price >= 1000000) as rank3_auctions
from src.bid
group by 1, 2

-- q17: auction statistics
select auction, to_char(date_time, 'YYYY-MM-DD') as day,
  count(*) as total_bids,
  count(*) filter (where price < 10000) as rank1_bids,
  count(*) filter (where price >= 10000 and price < 1000000) as rank2_bids,
  count(*) filter (where price >= 1000000) as rank3_bids,
  min(price) as min_price, max(price) as max_price, avg(price) as avg_price, sum(price) as sum_price
from src.bid
group by 1, 2

-- q18: last bid
select auction, bidder, price, channel, url, date_time, extra
from (
  select *, row_number() over (partition by bidder, auction order by date_time desc) as place from src.bid
) as bids
where place = 1

-- q19: the ten best bids of each auction
select auction, bidder, price, channel, url, date_time, extra, place
from (
  select *, row_number() over (partition by auction order by price desc) as place from src.bid
) as bids
where place <= 10

-- q20: bids with their auctions
select b.auction, b.bidder, b.price, b.channel, b.url, b.date_time as bid_date_time, b.extra as bid_extra,
  a.item_name, a.description, a.initial_bid, a.reserve, a.date_time, a.expires, a.seller, a.category, a.extra
from src.bid as b
join src.auction as a on b.auction = a.id
where a.category = 10

-- q21: channel ids
select auction, bidder, price, channel,
  case lower(channel)
    when 'apple' then '0' when 'google' then '1' when 'facebook' then '2' when 'baidu' then '3'
    else regexp_match(url, '(&|^)channel_id=([^&]*)')[2]
  end as channel_id
from src.bid
where lower(channel) in ('apple', 'google', 'facebook', 'baidu') or regexp_match(url, '(&|^)channel_id=([^&]*)') is not null

-- q22: directories of urls
select auction, bidder, price, channel,
  split_part(url, '/', 4) as dir1, split_part(url, '/', 5) as dir2, split_part(url, '/', 6) as dir3
from src.bid
