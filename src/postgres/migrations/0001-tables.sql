-- What a store keeps. @schema@ is the store's own schema, quoted, wherever it stands here; several stores live side by side in one database.
--
-- Whatever a caller hands in as text and may hold \u0000 or half a surrogate pair (request ids, idempotency ids, channels) is kept as the
-- JSON text of that string; records and fields are kept as the very JSON text that came in. No json type: jsonb would reorder and refuse.

-- One row per session key. change: from the sequence, anew with every change of the row.
create table @schema@.entries (
  key text collate "C" primary key,
  session_id uuid not null,
  -- The first session that the key named: idempotency ids and requests are remembered under it, across rotation.
  origin uuid not null,
  revision bigint not null,
  created_at bigint not null,
  updated_at bigint not null,
  fields text not null,
  change bigint not null
);
create sequence @schema@.changes;

-- One row per session id, also of those that no key names any more (closed). Whoever writes to a transcript holds its row.
create table @schema@.logs (
  session_id uuid primary key,
  key text collate "C" not null,
  origin uuid not null,
  previous uuid,
  created_at bigint not null,
  changed_at bigint not null,
  -- Of the last record of any kind, and of the last that a caller wrote.
  last_seq bigint not null default 0,
  user_seq bigint not null default 0,
  bytes bigint not null default 0,
  ids bigint not null default 0,
  turn_last bigint not null default 0,
  -- Of the turns that took somebody's input, those that came to nothing, the last 64.
  turns_failed bigint[] not null default '{}',
  -- The active turn.
  turn bigint,
  turn_request text,
  turn_lease bigint,
  closed_at bigint,
  -- rotated · deleted · retained
  closed_by text,
  closed_why text,
  next uuid
) with (fillfactor = 70);
create index logs_closed on @schema@.logs (key, closed_at) where closed_at is not null;

-- kind: r a caller's record · i the first record of an input · t an event of a turn · s a summary. part: what the store says of it, as JSON.
create table @schema@.records (
  session_id uuid not null,
  seq bigint not null,
  kind "char" not null,
  part text,
  body text not null,
  primary key (session_id, seq)
);

-- Which records are summaries, and up to what they stand for others.
create table @schema@.summaries (
  session_id uuid not null,
  seq bigint not null,
  up_to bigint not null,
  records bigint not null,
  primary key (session_id, seq)
);

-- Idempotency ids.
create table @schema@.ids (
  origin uuid not null,
  id text collate "C" not null,
  n bigint not null,
  session_id uuid not null,
  seq bigint not null,
  count integer not null,
  primary key (origin, id)
);

-- Which statements have been committed, and what they answered: whoever loses the connection in between asks again with the same id.
create table @schema@.commits (
  id uuid primary key,
  at timestamptz not null default clock_timestamp(),
  result text[] not null
);
create index commits_at on @schema@.commits using brin (at);

-- Sessions that no key names any more.
create view @schema@.archive as
  select session_id, key, previous, next, created_at, closed_at, closed_by, closed_why, last_seq, bytes
  from @schema@.logs where closed_at is not null;

create function @schema@.now_ms() returns bigint language sql volatile as $holdfast$
  select floor(extract(epoch from clock_timestamp()) * 1000)::bigint
$holdfast$;

-- Held shared by whoever changes entries, alone by whoever decides on all of them. Ends with the transaction, so poolers are no matter.
create function @schema@.store_lock() returns bigint language sql immutable as $holdfast$
  select hashtextextended('holdfast:@schema@', 0)
$holdfast$;

-- Held by whoever makes an entry for a key, or relies on there being none.
create function @schema@.key_lock(p_key text) returns bigint language sql immutable as $holdfast$
  select hashtextextended('holdfast:@schema@:' || p_key, 1)
$holdfast$;

-- Every write begins with this. What an earlier try of the same commit has answered; null for the first.
create function @schema@.begin_commit(p_commit uuid, p_wait_ms integer) returns text[] language plpgsql as $holdfast$
declare
  v_result text[];
begin
  -- 0 would mean: for ever.
  perform set_config('lock_timeout', greatest(p_wait_ms, 1) || 'ms', true);
  -- Acknowledged means on the disk, whatever the defaults of role and database say.
  if current_setting('synchronous_commit') = 'off' then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  select result into v_result from @schema@.commits where id = p_commit;
  return v_result;
end
$holdfast$;

-- The log of the session that a key names, held; makes one where there is none and p_new says under which id.
create function @schema@.hold_log(p_key text, p_new uuid) returns @schema@.logs language plpgsql as $holdfast$
declare
  v_session uuid;
  v_before uuid;
  v_log @schema@.logs;
  v_now bigint;
begin
  loop
    select session_id into v_session from @schema@.entries where key = p_key;
    if found then
      select * into v_log from @schema@.logs where session_id = v_session for update;
      if found and v_log.closed_at is null then return v_log; end if;
      -- Closed while we waited: then the key names another by now, or none. Still the same: nothing that this store does.
      if v_before = v_session or v_log.session_id is null then
        raise exception 'the log of session % is %', v_session, case when found then 'closed' else 'missing' end using errcode = 'HF001';
      end if;
      v_before := v_session;
      continue;
    end if;
    if p_new is null then return null; end if;
    perform pg_advisory_xact_lock_shared(@schema@.store_lock());
    perform pg_advisory_xact_lock(@schema@.key_lock(p_key));
    v_now := @schema@.now_ms();
    insert into @schema@.entries (key, session_id, origin, revision, created_at, updated_at, fields, change)
      values (p_key, p_new, p_new, 1, v_now, v_now, '{}', nextval('@schema@.changes'))
      on conflict (key) do nothing;
    if found then
      insert into @schema@.logs (session_id, key, origin, created_at, changed_at) values (p_new, p_key, p_new, v_now, v_now);
    end if;
  end loop;
end
$holdfast$;
