-- Turns: who may begin one (leases), what the log says of them (events among the records), which requests have been answered, who waits.
-- What decides is the log's row: an event is written only by whoever holds it, and only while the turn that it speaks for is the active one.

-- Processes that have, or wait for, a turn. until: after that they count as dead; each puts its own off again and again.
create table @schema@.handles (
  id uuid primary key,
  host text not null,
  pid integer not null,
  until timestamptz not null
);

-- Who waits in line. Advisory, like a card on a board: it orders and shows.
create table @schema@.places (
  id uuid primary key,
  key text collate "C" not null,
  n bigint generated always as identity,
  handle uuid not null,
  request text collate "C" not null,
  channel text,
  lane text not null,
  when_busy text not null,
  since bigint not null,
  -- Of its last try: one that does not try any more stops nobody.
  tried timestamptz not null
);
create index places_key on @schema@.places (key, n);

-- The right to run a key's turns. token: grows with every taking, of any key.
create table @schema@.leases (
  key text collate "C" primary key,
  token bigint not null,
  handle uuid not null,
  request text not null,
  channel text,
  lane text not null,
  max_ms bigint not null,
  progress timestamptz not null,
  taken timestamptz not null,
  -- Of the turn that has begun under it.
  turn bigint,
  session_id uuid,
  since bigint,
  interrupt_by text,
  interrupt_at bigint
);
create sequence @schema@.tokens;

-- Inputs that no turn has taken.
create table @schema@.inputs (
  session_id uuid not null,
  seq bigint not null,
  count integer not null,
  request text collate "C" not null,
  when_busy text not null,
  given boolean not null,
  primary key (session_id, request)
);

-- What is known of requests. state: pending, taken (by another's turn), active, completed, failed, interrupted.
create table @schema@.requests (
  origin uuid not null,
  request text collate "C" not null,
  given boolean not null,
  state text not null,
  turn bigint not null,
  attempt integer not null,
  session_id uuid not null,
  end_seq bigint not null,
  seq bigint not null,
  count integer not null,
  primary key (origin, request)
);

-- Who has the lease is alive, and has made progress.
create function @schema@.lease_stands(p_lease @schema@.leases) returns boolean language sql stable as $holdfast$
  select p_lease.progress + p_lease.max_ms * interval '1 millisecond' > clock_timestamp()
    and exists (select from @schema@.handles where id = p_lease.handle and until > clock_timestamp())
$holdfast$;

create function @schema@.keep_handle(p_handle uuid, p_host text, p_pid integer, p_lease_ms bigint) returns void language sql as $holdfast$
  insert into @schema@.handles as h values (p_handle, p_host, p_pid, clock_timestamp() + p_lease_ms * interval '1 millisecond')
    on conflict (id) do update set until = excluded.until
    where h.until < clock_timestamp() + p_lease_ms * interval '0.8 milliseconds'
$holdfast$;

-- A sign of life of a process, and of the progress of its turns. Answers its leases that stand, with who wants them to stop.
create function @schema@.beat(p_handle uuid, p_host text, p_pid integer, p_lease_ms bigint, p_keys text[], p_tokens bigint[], p_progress boolean[])
  returns table (key text, token bigint, interrupt_by text, interrupt_at bigint) language plpgsql as $holdfast$
#variable_conflict use_column
begin
  perform set_config('synchronous_commit', 'off', true);
  perform @schema@.keep_handle(p_handle, p_host, p_pid, p_lease_ms);
  update @schema@.leases l set progress = clock_timestamp()
    from unnest(p_keys, p_tokens, p_progress) as p (key, token, made)
    where l.key = p.key and l.token = p.token and p.made;
  return query select l.key, l.token, l.interrupt_by, l.interrupt_at
    from unnest(p_keys, p_tokens) as p (key, token) join @schema@.leases l on l.key = p.key and l.token = p.token;
end
$holdfast$;

-- Removes what the dead have left in line.
create function @schema@.sweep_line() returns void language sql as $holdfast$
  delete from @schema@.handles where until < clock_timestamp() - interval '1 day';
  delete from @schema@.places p where not exists (
    select from @schema@.handles h where h.id = p.handle and h.until > clock_timestamp() - interval '1 minute');
$holdfast$;

create function @schema@.show_place(
  p_id uuid, p_key text, p_handle uuid, p_host text, p_pid integer, p_lease_ms bigint, p_request text, p_channel text, p_lane text, p_when text
) returns void language plpgsql as $holdfast$
begin
  perform set_config('synchronous_commit', 'off', true);
  perform @schema@.keep_handle(p_handle, p_host, p_pid, p_lease_ms);
  insert into @schema@.places (id, key, handle, request, channel, lane, when_busy, since, tried)
    values (p_id, p_key, p_handle, p_request, p_channel, p_lane, p_when, @schema@.now_ms(), clock_timestamp())
    on conflict (id) do nothing;
end
$holdfast$;

-- The lease, now or not: the token, or null. From whom it was taken over, if it was: dead, expired.
-- p_place: the caller's in line, null for none: then all that wait are before it. Those that have not tried for 300 ms are not waited for.
create function @schema@.take_lease(
  p_key text, p_place uuid, p_handle uuid, p_host text, p_pid integer, p_lease_ms bigint, p_request text, p_channel text, p_lane text,
  p_max_ms bigint, out token bigint, out over text
) language plpgsql as $holdfast$
declare
  v_before @schema@.leases;
  v_n bigint;
begin
  perform set_config('synchronous_commit', 'off', true);
  perform @schema@.keep_handle(p_handle, p_host, p_pid, p_lease_ms);
  if p_place is not null then
    update @schema@.places p set tried = clock_timestamp() where p.id = p_place returning p.n into v_n;
  end if;
  if exists (
    select from @schema@.places p join @schema@.handles h on h.id = p.handle
    where p.key = p_key and (v_n is null or p.n < v_n) and p.id is distinct from p_place
      and h.until > clock_timestamp() and p.tried > clock_timestamp() - interval '300 milliseconds'
  ) then
    return;
  end if;
  select * into v_before from @schema@.leases l where l.key = p_key for update;
  if found then
    if @schema@.lease_stands(v_before) then return; end if;
    over := case when v_before.progress + v_before.max_ms * interval '1 millisecond' > clock_timestamp() then 'dead' else 'expired' end;
    delete from @schema@.leases l where l.key = p_key;
  end if;
  insert into @schema@.leases as l (key, token, handle, request, channel, lane, max_ms, progress, taken)
    values (p_key, nextval('@schema@.tokens'), p_handle, p_request, p_channel, p_lane, p_max_ms, clock_timestamp(), clock_timestamp())
    on conflict (key) do nothing
    returning l.token into token;
end
$holdfast$;

-- Why a turn may not write any more, as a line of `append`; null: it may. The log is held.
create function @schema@.fence(p_log @schema@.logs, p_turn bigint, p_lease bigint) returns text language plpgsql as $holdfast$
begin
  if p_log.turn is distinct from p_turn then return 'lost|' || p_log.session_id || '|' || p_log.turn_last || '|turn'; end if;
  update @schema@.leases set progress = clock_timestamp() where key = p_log.key and token = p_lease;
  if not found then return 'lost|' || p_log.session_id || '|' || p_log.turn_last || '|lease'; end if;
  return null;
end
$holdfast$;

-- Whether somebody alive waits in line to run a request himself.
create function @schema@.is_waiting(p_key text, p_request text) returns boolean language sql stable as $holdfast$
  select exists (
    select from @schema@.places p join @schema@.handles h on h.id = p.handle
    where p.key = p_key and p.request = p_request and h.until > clock_timestamp())
$holdfast$;

-- Pending inputs that are for whoever has the turn: left for it, or by callers who are gone.
create function @schema@.anybodys(p_log @schema@.logs, p_except text) returns setof @schema@.inputs language sql stable as $holdfast$
  select i.* from @schema@.inputs i
  where i.session_id = p_log.session_id and i.request is distinct from p_except
    and (i.when_busy = 'coalesce' or not @schema@.is_waiting(p_log.key, i.request))
  order by i.seq
$holdfast$;

create function @schema@.takes_json(p_inputs @schema@.inputs[]) returns text language sql immutable as $holdfast$
  select coalesce(string_agg('[' || request || ',' || seq || ',' || count || ']', ',' order by at), '')
  from unnest(p_inputs) with ordinality as t (session_id, seq, count, request, when_busy, given, at)
$holdfast$;

-- Adds an event to a log that is held.
create function @schema@.put_event(inout p_log @schema@.logs, p_event text) language plpgsql as $holdfast$
begin
  p_log.last_seq := p_log.last_seq + 1;
  insert into @schema@.records (session_id, seq, kind, part, body) values (p_log.session_id, p_log.last_seq, 't', '{"turn":' || p_event || '}', '{}');
end
$holdfast$;

-- Adds an input to a log that is held; the first record says whose it is.
create function @schema@.put_input(inout p_log @schema@.logs, p_part text, p_bodies text[]) language plpgsql as $holdfast$
begin
  insert into @schema@.records (session_id, seq, kind, part, body)
    select p_log.session_id, p_log.last_seq + at, case at when 1 then 'i' else 'r' end, case at when 1 then p_part end, body
    from unnest(p_bodies) with ordinality as b (body, at);
  p_log.last_seq := p_log.last_seq + cardinality(p_bodies);
  p_log.user_seq := p_log.last_seq;
  p_log.bytes := p_log.bytes + (select coalesce(sum(octet_length(b)), 0) from unnest(p_bodies) as b);
end
$holdfast$;

-- The log's own facts after a turn's event.
create function @schema@.put_turn(p_log @schema@.logs) returns void language sql as $holdfast$
  update @schema@.logs
    set last_seq = p_log.last_seq, user_seq = p_log.user_seq, bytes = p_log.bytes, turn_last = p_log.turn_last, turns_failed = p_log.turns_failed,
      turn = p_log.turn, turn_request = p_log.turn_request, turn_lease = p_log.turn_lease, changed_at = @schema@.now_ms()
    where session_id = p_log.session_id
$holdfast$;

create function @schema@.request_line(p_known @schema@.requests) returns text[] language sql immutable as $holdfast$
  select array[p_known.state, p_known.session_id::text, p_known.turn::text, p_known.attempt::text, p_known.end_seq::text, p_known.seq::text, p_known.count::text]
$holdfast$;

-- Leaves an input for a turn to come or for the active one; nothing when this request has left one before.
-- Answers {session, seq of its first record, its records, active turn, its request, its lease, then the earlier request, if there was one}.
create function @schema@.leave_input(
  p_commit uuid, p_wait_ms integer, p_key text, p_new uuid, p_request text, p_given boolean, p_when text, p_part text, p_bodies text[]
) returns text[] language plpgsql as $holdfast$
declare
  v_result text[] := @schema@.begin_commit(p_commit, p_wait_ms);
  v_log @schema@.logs;
  v_known @schema@.requests;
begin
  if v_result is not null then return v_result; end if;
  v_log := @schema@.hold_log(p_key, p_new);
  select * into v_known from @schema@.requests where origin = v_log.origin and request = p_request;
  v_result := array[v_log.turn::text, v_log.turn_request, v_log.turn_lease::text];
  if p_given and v_known.request is not null
    -- It came to nothing, and its input, if it had any, is in a session that is closed.
    and not (v_known.state in ('failed', 'interrupted') and (v_known.count = 0 or v_known.session_id <> v_log.session_id)) then
    return array[v_known.session_id::text, v_known.seq::text, v_known.count::text] || v_result || @schema@.request_line(v_known);
  end if;
  insert into @schema@.inputs values (v_log.session_id, v_log.last_seq + 1, cardinality(p_bodies), p_request, p_when, p_given);
  insert into @schema@.requests values
    (v_log.origin, p_request, p_given, 'pending', 0, coalesce(v_known.attempt, 0), v_log.session_id, -1, v_log.last_seq + 1, cardinality(p_bodies))
    on conflict (origin, request) do update
      set state = 'pending', turn = 0, session_id = excluded.session_id, end_seq = -1, seq = excluded.seq, count = excluded.count;
  v_result := array[v_log.session_id::text, (v_log.last_seq + 1)::text, cardinality(p_bodies)::text] || v_result;
  v_log := @schema@.put_input(v_log, p_part, p_bodies);
  perform @schema@.put_turn(v_log);
  insert into @schema@.commits (id, result) values (p_commit, v_result);
  return v_result;
end
$holdfast$;

-- Takes an input back that no turn has taken. {withdrawn} or {none}.
create function @schema@.withdraw_input(p_commit uuid, p_wait_ms integer, p_key text, p_request text) returns text[] language plpgsql as $holdfast$
declare
  v_result text[] := @schema@.begin_commit(p_commit, p_wait_ms);
  v_log @schema@.logs;
begin
  if v_result is not null then return v_result; end if;
  v_log := @schema@.hold_log(p_key, null);
  delete from @schema@.inputs where session_id = v_log.session_id and request = p_request;
  if not found then return array['none']; end if;
  delete from @schema@.requests where origin = v_log.origin and request = p_request;
  v_log := @schema@.put_event(v_log, '{"event":"withdraw","request":' || p_request || ',"at":' || @schema@.now_ms() || '}');
  perform @schema@.put_turn(v_log);
  v_result := array['withdrawn'];
  insert into @schema@.commits (id, result) values (p_commit, v_result);
  return v_result;
end
$holdfast$;

-- What the active turn's holder leaves behind that is no more, or has failed: the last 64 such turns are remembered.
create function @schema@.failed_with(p_failed bigint[], p_turn bigint) returns bigint[] language sql immutable as $holdfast$
  select (p_failed || p_turn)[greatest(1, cardinality(p_failed) - 62):]
$holdfast$;

-- Begins a turn: takes its own input, and every other that nobody waits to run. Nothing is written when the request was answered before.
-- p_bodies: its input when it is not in the log yet, else null. p_only_left: only to answer what others have left.
-- Answers {started, session, turn, attempt, seq of its input, its records, 1 when it was written with the start, requests, seqs and counts of
-- what was left, as JSON}, {answered|coalesced, session, turn, attempt, end}, {nothing}, or {lost, session, turn, why}.
create function @schema@.begin_turn(
  p_commit uuid, p_wait_ms integer, p_key text, p_new uuid, p_request text, p_given boolean, p_only_left boolean,
  p_lane text, p_channel text, p_lease bigint, p_place uuid, p_part text, p_bodies text[]
) returns text[] language plpgsql as $holdfast$
declare
  v_result text[] := @schema@.begin_commit(p_commit, p_wait_ms);
  v_log @schema@.logs;
  v_known @schema@.requests;
  v_own @schema@.inputs;
  v_left @schema@.inputs[];
  v_rest text;
  v_fresh boolean := false;
  v_takes_own boolean := false;
  v_turn bigint;
  v_attempt integer;
  v_takes text;
begin
  if v_result is not null then return v_result; end if;
  v_log := @schema@.hold_log(p_key, case when p_only_left then null else p_new end);
  if v_log.session_id is null then return array['nothing']; end if;
  select * into v_known from @schema@.requests where origin = v_log.origin and request = p_request;
  if v_known.state = 'completed' then
    return array['answered', v_known.session_id::text, v_known.turn::text, v_known.attempt::text, v_known.end_seq::text];
  end if;
  -- Its input went into somebody else's turn. When that one came to nothing, it is begun anew.
  if v_known.state = 'taken' and v_known.turn is distinct from v_log.turn and not v_known.turn = any (v_log.turns_failed) then
    return array['coalesced', v_known.session_id::text, v_known.turn::text, v_known.attempt::text, (v_known.seq + v_known.count - 1)::text];
  end if;
  if v_known.count > 0 and v_known.session_id = v_log.session_id then
    v_own := row(v_log.session_id, v_known.seq, v_known.count, p_request, 'queue', p_given);
    v_takes_own := exists (select from @schema@.inputs where session_id = v_log.session_id and request = p_request);
  elsif p_bodies is not null then
    v_own := row(v_log.session_id, v_log.last_seq + 1, cardinality(p_bodies), p_request, 'queue', p_given);
    v_fresh := true;
    v_takes_own := true;
  end if;
  v_left := array(select i from @schema@.anybodys(v_log, p_request) as i);
  if p_only_left and cardinality(v_left) = 0 then return array['nothing']; end if;
  -- Last of all that is asked: whoever has taken the lease over since, has done so before this turn, or will begin after it.
  update @schema@.leases set turn = v_log.turn_last + 1, session_id = v_log.session_id, since = @schema@.now_ms(), progress = clock_timestamp(),
    request = p_request, channel = p_channel, lane = p_lane, interrupt_by = null, interrupt_at = null
    where key = p_key and token = p_lease;
  if not found then return array['lost', v_log.session_id::text, (v_log.turn_last + 1)::text, 'lease']; end if;
  if v_fresh then v_log := @schema@.put_input(v_log, p_part, p_bodies); end if;
  v_turn := v_log.turn_last + 1;
  v_attempt := coalesce(v_known.attempt, 0) + 1;
  v_takes := @schema@.takes_json(case when v_takes_own then array_append(v_left, v_own) else v_left end);
  v_log := @schema@.put_event(v_log,
    '{"event":"start","n":' || v_turn || ',"request":' || p_request || case when p_given then ',"given":true' else '' end
    || ',"attempt":' || v_attempt || ',"lane":' || p_lane || coalesce(',"channel":' || p_channel, '')
    || ',"at":' || @schema@.now_ms() || ',"lease":' || p_lease
    || case when v_takes = '' then '' else ',"takes":[' || v_takes || ']' end
    || coalesce(',"interrupted":' || v_log.turn, '') || '}');
  if v_log.turn is not null then
    update @schema@.requests set state = 'interrupted'
      where origin = v_log.origin and request = v_log.turn_request and turn = v_log.turn and state = 'active';
    v_log.turns_failed := @schema@.failed_with(v_log.turns_failed, v_log.turn);
  end if;
  perform @schema@.note_taken(v_log, v_turn, v_left);
  delete from @schema@.inputs where session_id = v_log.session_id and request = p_request;
  insert into @schema@.requests values (v_log.origin, p_request, p_given, 'active', v_turn, v_attempt, v_log.session_id, -1, coalesce(v_own.seq, 0), coalesce(v_own.count, 0))
    on conflict (origin, request) do update set state = 'active', turn = excluded.turn, attempt = excluded.attempt,
      session_id = excluded.session_id, end_seq = -1, seq = excluded.seq, count = excluded.count;
  if p_place is not null then delete from @schema@.places where id = p_place; end if;
  v_log.turn := v_turn;
  v_log.turn_last := v_turn;
  v_log.turn_request := p_request;
  v_log.turn_lease := p_lease;
  perform @schema@.put_turn(v_log);
  -- Nobody asks for passing requests of long ago; of those that callers have named, the last 10,000 at least are kept.
  if v_turn % 1000 = 0 then
    delete from @schema@.requests r where r.origin = v_log.origin and r.state <> 'pending'
      and r.turn < v_turn - case when r.given then 10000 else 1000 end;
  end if;
  v_result := array['started', v_log.session_id::text, v_turn::text, v_attempt::text, v_own.seq::text, v_own.count::text,
    case when v_fresh then '1' else '0' end, '[' || @schema@.takes_json(v_left) || ']'];
  insert into @schema@.commits (id, result) values (p_commit, v_result);
  return v_result;
end
$holdfast$;

create function @schema@.note_taken(p_log @schema@.logs, p_turn bigint, p_inputs @schema@.inputs[]) returns void language plpgsql as $holdfast$
begin
  update @schema@.requests r set state = 'taken', turn = p_turn, session_id = p_log.session_id, seq = t.seq, count = t.count
    from unnest(p_inputs) as t where r.origin = p_log.origin and r.request = t.request;
  delete from @schema@.inputs i using unnest(p_inputs) as t where i.session_id = t.session_id and i.request = t.request;
end
$holdfast$;

-- A fenced write: the log of that session, held, and the turn is the active one; else why not, as a line of `append`.
create function @schema@.hold_for_turn(
  p_key text, p_session text, p_turn bigint, p_lease bigint, out log @schema@.logs, out lost text
) language plpgsql as $holdfast$
begin
  log := @schema@.hold_log(p_key, null);
  lost := case
    when log.session_id is null then 'lost|||deleted'
    when log.session_id::text <> p_session then 'lost|' || log.session_id || '|' || log.turn_last || '|session'
    else @schema@.fence(log, p_turn, p_lease)
  end;
end
$holdfast$;

-- Hands the active turn what others have left for it since: {taken, as JSON} or {lost|…}.
create function @schema@.take_inputs(
  p_commit uuid, p_wait_ms integer, p_key text, p_session text, p_turn bigint, p_lease bigint
) returns text[] language plpgsql as $holdfast$
declare
  v_result text[] := @schema@.begin_commit(p_commit, p_wait_ms);
  v_held record;
  v_log @schema@.logs;
  v_left @schema@.inputs[];
begin
  if v_result is not null then return v_result; end if;
  v_held := @schema@.hold_for_turn(p_key, p_session, p_turn, p_lease);
  if v_held.lost is not null then return array[v_held.lost]; end if;
  v_log := v_held.log;
  v_left := array(select i from @schema@.anybodys(v_log, null) as i);
  v_result := array['taken', '[' || @schema@.takes_json(v_left) || ']'];
  if cardinality(v_left) = 0 then return v_result; end if;
  v_log := @schema@.put_event(v_log,
    '{"event":"take","n":' || p_turn || ',"at":' || @schema@.now_ms() || ',"takes":[' || @schema@.takes_json(v_left) || ']}');
  perform @schema@.note_taken(v_log, p_turn, v_left);
  perform @schema@.put_turn(v_log);
  insert into @schema@.commits (id, result) values (p_commit, v_result);
  return v_result;
end
$holdfast$;

-- Ends a turn; with nothing left for another one its lease is given back in the same breath.
-- {ended, how many inputs it leaves that nobody waits to run, 1 when the lease is free} or {lost|…}.
create function @schema@.end_turn(
  p_commit uuid, p_wait_ms integer, p_key text, p_session text, p_turn bigint, p_lease bigint, p_request text, p_outcome text, p_value text, p_error text
) returns text[] language plpgsql as $holdfast$
declare
  v_result text[] := @schema@.begin_commit(p_commit, p_wait_ms);
  v_held record;
  v_log @schema@.logs;
  v_left bigint;
begin
  if v_result is not null then return v_result; end if;
  v_held := @schema@.hold_for_turn(p_key, p_session, p_turn, p_lease);
  if v_held.lost is not null then return array[v_held.lost]; end if;
  v_log := v_held.log;
  select count(*) into v_left from @schema@.anybodys(v_log, null);
  v_log := @schema@.put_event(v_log,
    '{"event":"end","n":' || p_turn || ',"request":' || p_request || ',"outcome":"' || p_outcome || '","at":' || @schema@.now_ms()
    || coalesce(',"value":' || p_value, '') || coalesce(',"error":' || p_error, '') || '}');
  update @schema@.requests set state = p_outcome, turn = p_turn, end_seq = v_log.last_seq, session_id = v_log.session_id
    where origin = v_log.origin and request = p_request;
  if p_outcome <> 'completed' then v_log.turns_failed := @schema@.failed_with(v_log.turns_failed, p_turn); end if;
  v_log.turn := null;
  v_log.turn_request := null;
  v_log.turn_lease := null;
  perform @schema@.put_turn(v_log);
  if v_left = 0 then
    delete from @schema@.leases where key = p_key and token = p_lease;
  else
    update @schema@.leases set turn = null where key = p_key and token = p_lease;
  end if;
  v_result := array['ended', v_left::text, case when v_left = 0 then '1' else '0' end];
  insert into @schema@.commits (id, result) values (p_commit, v_result);
  return v_result;
end
$holdfast$;

-- What becomes of the turns when the key goes on under another session: the active one was interrupted, and what waits, goes on there.
create function @schema@.carry_turns(p_old @schema@.logs, p_new uuid) returns void language plpgsql as $holdfast$
declare
  v_log @schema@.logs;
  v_input @schema@.inputs;
  v_part text;
  v_bodies text[];
begin
  select * into v_log from @schema@.logs where session_id = p_new;
  if p_old.turn is not null then
    update @schema@.requests set state = 'interrupted'
      where origin = p_old.origin and request = p_old.turn_request and turn = p_old.turn and state = 'active';
    v_log.turns_failed := @schema@.failed_with(v_log.turns_failed, p_old.turn);
  end if;
  for v_input in select * from @schema@.inputs where session_id = p_old.session_id order by seq loop
    select array_agg(body order by seq), min(part) filter (where seq = v_input.seq) into v_bodies, v_part from @schema@.records
      where session_id = p_old.session_id and seq >= v_input.seq and seq < v_input.seq + v_input.count;
    update @schema@.requests set session_id = p_new, seq = v_log.last_seq + 1 where origin = p_old.origin and request = v_input.request;
    insert into @schema@.inputs values (p_new, v_log.last_seq + 1, v_input.count, v_input.request, v_input.when_busy, v_input.given);
    v_log := @schema@.put_input(v_log, v_part, v_bodies);
  end loop;
  delete from @schema@.inputs where session_id = p_old.session_id;
  perform @schema@.put_turn(v_log);
end
$holdfast$;
