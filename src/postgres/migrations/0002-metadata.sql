-- Changes of entries: what a mutator has read is compared, row by row, with what is there, under locks; then all of it is written, or none.

-- Closes a log whose key goes on elsewhere, or is gone.
create function @schema@.close_log(p_session uuid, p_by text, p_why text, p_next uuid) returns @schema@.logs language plpgsql as $holdfast$
declare
  v_log @schema@.logs;
begin
  update @schema@.logs
    set closed_at = @schema@.now_ms(), closed_by = p_by, closed_why = p_why, next = p_next, turn = null, turn_request = null, turn_lease = null
    where session_id = p_session and closed_at is null
    returning * into v_log;
  if not found then
    raise exception 'the log of session % is closed or missing', p_session using errcode = 'HF001';
  end if;
  return v_log;
end
$holdfast$;

-- What was remembered for a key that is gone: whoever comes with it again begins anew.
create function @schema@.forget(p_origin uuid, p_session uuid) returns void language plpgsql as $holdfast$
begin
  delete from @schema@.ids where origin = p_origin;
  delete from @schema@.requests where origin = p_origin;
  delete from @schema@.inputs where session_id = p_session;
end
$holdfast$;

-- The rows of these keys, as a mutator has to see them. change 0: there is none.
create function @schema@.rows_of(p_keys text[])
  returns table (key text, session_id uuid, revision bigint, created_at bigint, updated_at bigint, fields text, change bigint)
  language sql stable as $holdfast$
  select k.key, e.session_id, e.revision, e.created_at, e.updated_at, e.fields, coalesce(e.change, 0)
  from unnest(p_keys) as k (key) left join @schema@.entries e on e.key = k.key
$holdfast$;

-- Everything, at a moment at which nobody is changing anything: so that the highest change says which state it is.
create function @schema@.all_rows()
  returns table (key text, session_id uuid, revision bigint, created_at bigint, updated_at bigint, fields text, change bigint)
  language plpgsql as $holdfast$
begin
  perform pg_advisory_xact_lock(@schema@.store_lock());
  return query select e.key, e.session_id, e.revision, e.created_at, e.updated_at, e.fields, e.change from @schema@.entries e;
end
$holdfast$;

-- p_reads, p_changes: what the decision rests on. p_count, p_highest: of all entries, when it rests on all of them; else null.
-- p_keys and what follows: one change each, in the order of the keys; fields null: deleted; p_drops: the session there before is closed.
-- Answers {committed, the server's time, the new change number of each}, or {conflict}: then nothing was done, and somebody else has changed what was read.
create function @schema@.commit_metadata(
  p_commit uuid, p_wait_ms integer, p_reads text[], p_changes bigint[], p_count bigint, p_highest bigint,
  p_keys text[], p_drops boolean[], p_sessions uuid[], p_revisions bigint[], p_created bigint[], p_updated bigint[], p_fields text[]
) returns text[] language plpgsql as $holdfast$
declare
  v_result text[] := @schema@.begin_commit(p_commit, p_wait_ms);
  v_lock bigint;
  v_before @schema@.entries;
  v_count bigint;
  v_highest bigint;
  v_numbers text[] := '{}';
  v_number bigint;
begin
  if v_result is not null then return v_result; end if;
  if p_count is null then
    perform pg_advisory_xact_lock_shared(@schema@.store_lock());
    for v_lock in
      select distinct @schema@.key_lock(r.key) from unnest(p_reads, p_changes) as r (key, change) where r.change = 0 order by 1
    loop
      perform pg_advisory_xact_lock(v_lock);
    end loop;
  else
    perform pg_advisory_xact_lock(@schema@.store_lock());
  end if;
  perform 1 from @schema@.entries where key = any (p_reads) order by key for update;
  if p_count is not null then
    select count(*), coalesce(max(change), 0) into v_count, v_highest from @schema@.entries;
    if v_count <> p_count or v_highest <> p_highest then return array['conflict']; end if;
  end if;
  if exists (
    select from unnest(p_reads, p_changes) as r (key, change) left join @schema@.entries e on e.key = r.key
    where coalesce(e.change, 0) <> r.change
  ) then
    return array['conflict'];
  end if;
  for at in 1 .. cardinality(p_keys) loop
    select * into v_before from @schema@.entries where key = p_keys[at];
    if found and p_drops[at] then
      perform 1 from @schema@.logs where session_id = v_before.session_id for update;
      perform @schema@.close_log(v_before.session_id, 'deleted', 'deleted', null);
      perform @schema@.forget(v_before.origin, v_before.session_id);
      delete from @schema@.entries where key = p_keys[at];
      v_before := null;
    end if;
    v_number := case when p_fields[at] is null then 0 else nextval('@schema@.changes') end;
    v_numbers := array_append(v_numbers, v_number::text);
    continue when v_number = 0;
    if v_before.key is null then
      insert into @schema@.entries (key, session_id, origin, revision, created_at, updated_at, fields, change) values
        (p_keys[at], p_sessions[at], p_sessions[at], p_revisions[at], p_created[at], p_updated[at], p_fields[at], v_number);
      insert into @schema@.logs (session_id, key, origin, created_at, changed_at) values
        (p_sessions[at], p_keys[at], p_sessions[at], p_created[at], p_created[at]);
    else
      update @schema@.entries
        set revision = p_revisions[at], updated_at = p_updated[at], fields = p_fields[at], change = v_number
        where key = p_keys[at];
    end if;
  end loop;
  v_result := array['committed', (extract(epoch from clock_timestamp()) * 1000)::float8::text] || v_numbers;
  insert into @schema@.commits (id, result) values (p_commit, v_result);
  return v_result;
end
$holdfast$;

-- {deleted} or {none}.
create function @schema@.delete_session(p_commit uuid, p_wait_ms integer, p_key text) returns text[] language plpgsql as $holdfast$
declare
  v_result text[] := @schema@.begin_commit(p_commit, p_wait_ms);
  v_entry @schema@.entries;
begin
  if v_result is not null then return v_result; end if;
  perform pg_advisory_xact_lock_shared(@schema@.store_lock());
  select * into v_entry from @schema@.entries where key = p_key for update;
  if not found then return array['none']; end if;
  perform 1 from @schema@.logs where session_id = v_entry.session_id for update;
  perform @schema@.close_log(v_entry.session_id, 'deleted', 'deleted', null);
  perform @schema@.forget(v_entry.origin, v_entry.session_id);
  delete from @schema@.entries where key = p_key;
  insert into @schema@.commits (id, result) values (p_commit, array['deleted', v_entry.session_id::text]);
  return array['deleted', v_entry.session_id::text];
end
$holdfast$;

-- {rotated, new session, old session} or {none}.
create function @schema@.rotate(p_commit uuid, p_wait_ms integer, p_key text, p_new uuid, p_why text) returns text[] language plpgsql as $holdfast$
declare
  v_result text[] := @schema@.begin_commit(p_commit, p_wait_ms);
  v_entry @schema@.entries;
  v_old @schema@.logs;
  v_log @schema@.logs;
begin
  if v_result is not null then return v_result; end if;
  perform pg_advisory_xact_lock_shared(@schema@.store_lock());
  select * into v_entry from @schema@.entries where key = p_key for update;
  if not found then return array['none']; end if;
  select * into v_old from @schema@.logs where session_id = v_entry.session_id for update;
  v_log := @schema@.close_log(v_entry.session_id, 'rotated', p_why, p_new);
  insert into @schema@.logs (session_id, key, origin, previous, created_at, changed_at, ids, turn_last, turns_failed) values
    (p_new, p_key, v_entry.origin, v_entry.session_id, v_log.closed_at, v_log.closed_at, v_log.ids, v_log.turn_last, v_log.turns_failed);
  update @schema@.entries
    set session_id = p_new, revision = revision + 1, updated_at = greatest(updated_at, v_log.closed_at), change = nextval('@schema@.changes')
    where key = p_key;
  perform @schema@.carry_turns(v_old, p_new);
  v_result := array['rotated', p_new::text, v_entry.session_id::text];
  insert into @schema@.commits (id, result) values (p_commit, v_result);
  return v_result;
end
$holdfast$;
