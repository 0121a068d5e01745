/** Loaded before a program (`node --import`): its wall clock jumps by up to an hour, twenty times a second, otherwise than its neighbours'. */
const read = Date.now

Date.now = () => {
  const now = read()
  return now + Math.round(Math.sin(Math.floor(now / 50) * 7.3 + process.pid) * 3_600_000)
}
