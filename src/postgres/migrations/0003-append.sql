-- Appending. One statement carries many callers' calls; each is decided by itself, and a refused one hinders no other.

-- One call each, ordered by key: p_keys; p_new: a session id in case the key names none; p_counts: how many of p_bodies are its own; p_ids: its
-- idempotency id; p_seqs: the number it expects; p_sessions: the session it expects; p_turns, p_leases: the turn on whose behalf it writes.
-- Answers one line per call:
--   ok|session|seq of its last record|count · dup|session|seq|count · seq|session|last seq of a caller's record · session|session ·
--   lost|session|turn that is active or began last|why
create function @schema@.append(
  p_commit uuid, p_wait_ms integer, p_keys text[], p_new uuid[], p_counts integer[], p_ids text[], p_seqs bigint[], p_sessions text[],
  p_turns bigint[], p_leases bigint[], p_parts text[], p_bodies text[]
) returns text[] language plpgsql as $holdfast$
declare
  v_result text[] := @schema@.begin_commit(p_commit, p_wait_ms);
  v_log @schema@.logs;
  v_held text;
  v_start integer := 0;
  v_wrote boolean := false;
  v_bytes bigint;
  v_earlier @schema@.ids;
  v_homes uuid[] := '{}';
  v_numbers bigint[] := '{}';
  v_line text;
begin
  if v_result is not null then return v_result; end if;
  v_result := '{}';
  -- Before any log is held: whoever decides on all entries waits for this, and may wait for a log.
  if cardinality(p_keys) > 1 and exists (select from unnest(p_keys) as k (key) where not exists (select from @schema@.entries e where e.key = k.key)) then
    perform pg_advisory_xact_lock_shared(@schema@.store_lock());
  end if;
  for at in 1 .. cardinality(p_keys) loop
    if v_held is distinct from p_keys[at] then
      if v_wrote then perform @schema@.put_log(v_log); end if;
      v_wrote := false;
      v_log := @schema@.hold_log(p_keys[at], case when p_turns[at] is null then p_new[at] end);
      v_held := case when v_log.session_id is null then null else p_keys[at] end;
    end if;
    v_line := null;
    if p_turns[at] is not null then
      v_line := case
        when v_log.session_id is null then 'lost|||deleted'
        when v_log.session_id::text <> p_sessions[at] then 'lost|' || v_log.session_id || '|' || v_log.turn_last || '|session'
        else @schema@.fence(v_log, p_turns[at], p_leases[at])
      end;
    end if;
    if v_line is null and p_ids[at] is not null then
      select * into v_earlier from @schema@.ids where origin = v_log.origin and id = p_ids[at];
      if found then v_line := 'dup|' || v_earlier.session_id || '|' || v_earlier.seq || '|' || v_earlier.count; end if;
    end if;
    if v_line is null and p_turns[at] is null and p_sessions[at] <> v_log.session_id::text then
      v_line := 'session|' || v_log.session_id;
    end if;
    if v_line is null and p_seqs[at] <> v_log.user_seq and p_seqs[at] <> v_log.last_seq then
      v_line := 'seq|' || v_log.session_id || '|' || v_log.user_seq;
    end if;
    if v_line is null then
      for n in 1 .. p_counts[at] loop
        v_homes := array_append(v_homes, v_log.session_id);
        v_numbers := array_append(v_numbers, v_log.last_seq + n);
      end loop;
      if p_counts[at] = 1 then
        v_bytes := octet_length(p_bodies[v_start + 1]);
      else
        select coalesce(sum(octet_length(b)), 0) into v_bytes from unnest(p_bodies[v_start + 1 : v_start + p_counts[at]]) as b;
      end if;
      v_log.last_seq := v_log.last_seq + p_counts[at];
      v_log.user_seq := v_log.last_seq;
      v_log.bytes := v_log.bytes + v_bytes;
      v_wrote := true;
      if p_ids[at] is not null then
        v_log.ids := v_log.ids + 1;
        insert into @schema@.ids values (v_log.origin, p_ids[at], v_log.ids, v_log.session_id, v_log.last_seq, p_counts[at]);
        -- The last 10,000 at least; the oldest go in heaps, so that it is seldom.
        if v_log.ids % 10000 = 0 then
          delete from @schema@.ids where origin = v_log.origin and n <= v_log.ids - 10000;
        end if;
      end if;
      v_line := 'ok|' || v_log.session_id || '|' || v_log.last_seq || '|' || p_counts[at];
    else
      for n in 1 .. p_counts[at] loop
        v_homes := array_append(v_homes, null::uuid);
        v_numbers := array_append(v_numbers, null::bigint);
      end loop;
    end if;
    v_start := v_start + p_counts[at];
    v_result := array_append(v_result, v_line);
  end loop;
  if v_wrote then perform @schema@.put_log(v_log); end if;
  insert into @schema@.records (session_id, seq, kind, part, body)
    select r.home, r.number, 'r', r.part, r.body
    from unnest(v_homes, v_numbers, p_parts, p_bodies) as r (home, number, part, body)
    where r.home is not null;
  if found then
    insert into @schema@.commits (id, result) values (p_commit, v_result);
  end if;
  return v_result;
end
$holdfast$;

-- What has been added to a log that is held.
create function @schema@.put_log(p_log @schema@.logs) returns void language sql as $holdfast$
  update @schema@.logs
    set last_seq = p_log.last_seq, user_seq = p_log.user_seq, bytes = p_log.bytes, ids = p_log.ids, changed_at = @schema@.now_ms()
    where session_id = p_log.session_id
$holdfast$;

-- Adds a summary, unless the session is another by now (session|…), or a summary that stands for as much has come in since (theirs|seq|part).
create function @schema@.summarize(
  p_commit uuid, p_wait_ms integer, p_key text, p_session text, p_base bigint, p_up_to bigint, p_records bigint, p_text text
) returns text[] language plpgsql as $holdfast$
declare
  v_result text[] := @schema@.begin_commit(p_commit, p_wait_ms);
  v_log @schema@.logs;
  v_theirs @schema@.summaries;
begin
  if v_result is not null then return v_result; end if;
  v_log := @schema@.hold_log(p_key, null);
  if v_log.session_id is null or v_log.session_id::text <> p_session then
    return array['session|' || coalesce(v_log.session_id::text, '')];
  end if;
  select * into v_theirs from @schema@.summaries where session_id = v_log.session_id and seq > p_base order by seq desc limit 1;
  if found and v_theirs.up_to >= p_up_to then
    return array['theirs|' || v_theirs.seq || '|' || v_theirs.up_to || '|' || v_theirs.records];
  end if;
  v_log.last_seq := v_log.last_seq + 1;
  insert into @schema@.summaries values (v_log.session_id, v_log.last_seq, p_up_to, p_records);
  insert into @schema@.records (session_id, seq, kind, part, body) values (
    v_log.session_id, v_log.last_seq, 's',
    '{"summary":{"upTo":' || p_up_to || ',"records":' || p_records || ',"text":' || p_text || ',"at":' || @schema@.now_ms() || '}}', '{}');
  perform @schema@.put_log(v_log);
  v_result := array['ours|' || v_log.last_seq];
  insert into @schema@.commits (id, result) values (p_commit, v_result);
  return v_result;
end
$holdfast$;
