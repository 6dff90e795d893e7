-- The statements of usage.py, by name.

-- name: add
-- In the order of the key: two servers that add to the same rows then wait for each other and do not deadlock.
INSERT INTO meshhost.usage
    (tenant, hour, room, identity, model, price, requests, input_tokens, cached_tokens, output_tokens, seconds, unmeasured,
    cache_write_tokens)
SELECT * FROM unnest(
    %(tenant)s::text[], %(hour)s::bigint[], %(room)s::text[], %(identity)s::text[], %(model)s::text[], %(price)s::text[],
    %(requests)s::bigint[], %(input_tokens)s::bigint[], %(cached_tokens)s::bigint[], %(output_tokens)s::bigint[], %(seconds)s::float8[],
    %(unmeasured)s::bigint[], %(cache_write_tokens)s::bigint[]
)
ORDER BY 1, 2, 3, 4, 5, 6
ON CONFLICT (tenant, hour, room, identity, model, price) DO UPDATE SET
    requests = usage.requests + excluded.requests,
    input_tokens = usage.input_tokens + excluded.input_tokens,
    cached_tokens = usage.cached_tokens + excluded.cached_tokens,
    output_tokens = usage.output_tokens + excluded.output_tokens,
    seconds = usage.seconds + excluded.seconds,
    unmeasured = usage.unmeasured + excluded.unmeasured,
    cache_write_tokens = usage.cache_write_tokens + excluded.cache_write_tokens

-- name: read
SELECT room, identity, model, hour, price, requests, input_tokens, cached_tokens, output_tokens, seconds, unmeasured,
    cache_write_tokens
FROM meshhost.usage
WHERE tenant = %(tenant)s AND hour >= %(since)s AND hour < %(until)s AND (%(room)s::text IS NULL OR room = %(room)s::text)
ORDER BY hour, room, identity, model, price LIMIT %(limit)s OFFSET %(offset)s

-- name: totals
-- The sum of integers is numeric in PostgreSQL.
SELECT tenant, '', '', model, hour / %(span)s::bigint * %(span)s::bigint AS begin, price, sum(requests)::bigint,
    sum(input_tokens)::bigint, sum(cached_tokens)::bigint, sum(output_tokens)::bigint, sum(seconds), sum(unmeasured)::bigint,
    sum(cache_write_tokens)::bigint
FROM meshhost.usage
WHERE hour >= %(since)s AND hour < %(until)s
GROUP BY tenant, model, begin, price
ORDER BY begin, tenant, model, price LIMIT %(limit)s OFFSET %(offset)s

-- name: delete_some
DELETE FROM meshhost.usage WHERE ctid = ANY (ARRAY(SELECT ctid FROM meshhost.usage WHERE tenant = %(tenant)s LIMIT 1000))
