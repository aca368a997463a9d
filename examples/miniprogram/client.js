// The connection of a WeChat mini program: copy this file into it, for example as
// utils/client.js.
//
//   const client = require('./utils/client.js')
//   App({
//     onLaunch() {
//       this.socket = client.create({ url: 'wss://example.com/mini', protocols: ['mini.v1'], onMessage: m => console.log(m) })
//       this.socket.start()
//     },
//     onShow() { this.socket && this.socket.onShow() },
//     onHide() { this.socket && this.socket.onHide() },
//   })
//
// It gets a fresh code by wx.login for every connection, since a code is good for
// one; comes back by itself after a lost connection, in pauses that grow and are
// drawn at random; asks for a sign of life after some silence; and does nothing in
// the background, where WeChat cuts the socket after some seconds.

const PAUSE_FIRST = 500, PAUSE_MIN = 200, PAUSE_CAP = 30000  // ms between attempts
const STABLE_AFTER = 5000    // so long must a connection last to get back to short pauses
const OPEN_WITHIN = 15000    // for wx.login, WeChat's answer and the handshake
const PING_AFTER = 20000     // silence after which the server is asked
const PONG_WITHIN = 10000    // and so long it has for an answer
const PONG_ON_SHOW = 3000    // less, when the user is looking

// The server will not have us back: 1008 a rule of its, 4000 to 4099 an
// application's. 4001: the user has connected elsewhere.
const isFinal = code => code === 1008 || (code >= 4000 && code <= 4099)

// create returns a connection that is not started. options: url; protocols;
// onMessage(object); onState('connecting' | 'open' | 'waiting' | 'hidden' | 'closed', detail).
function create(options) {
  const onMessage = options.onMessage || (() => {})
  const onState = options.onState || (() => {})
  let task = null         // the current SocketTask
  let attempt = 0         // tells answers to an older attempt from those to the current
  let failures = 0
  let open = false, started = false, hidden = false
  let retryTimer, openTimer, stableTimer, pingTimer, pongTimer

  function connect() {
    release()
    const mine = ++attempt
    const current = () => mine === attempt
    onState('connecting')
    openTimer = setTimeout(() => current() && ended(1006, 'no answer'), OPEN_WITHIN)
    wx.login({
      fail: e => current() && ended(1006, e.errMsg),
      success: ({ code }) => {
        if (!current()) return
        const query = (options.url.includes('?') ? '&' : '?') + 'code=' + encodeURIComponent(code)
        const t = task = wx.connectSocket({
          url: options.url + query,
          protocols: options.protocols,
          fail: e => current() && ended(1006, e.errMsg),
        })
        t.onOpen(() => {
          if (!current()) return
          clearTimeout(openTimer)
          open = true
          stableTimer = setTimeout(() => { failures = 0 }, STABLE_AFTER)
          heard()
          onState('open')
        })
        t.onMessage(({ data }) => {
          if (!current()) return
          heard()
          let message
          try { message = JSON.parse(data) } catch (e) { return }
          if (message && message.type !== 'pong') onMessage(message)
        })
        t.onError(e => current() && ended(1006, e.errMsg))
        t.onClose(e => current() && ended(e.code, e.reason))
      },
    })
  }

  // heard puts off the question whether anybody is there.
  function heard() {
    clearTimeout(pingTimer)
    clearTimeout(pongTimer)
    pingTimer = setTimeout(() => ping(PONG_WITHIN), PING_AFTER)
  }

  function ping(within) {
    const mine = attempt
    clearTimeout(pongTimer)
    pongTimer = setTimeout(() => mine === attempt && ended(1006, 'no answer to a ping'), within)
    send({ type: 'ping' })
  }

  // release lets go of the current socket and of every timer.
  function release() {
    [retryTimer, openTimer, stableTimer, pingTimer, pongTimer].forEach(clearTimeout)
    attempt++
    open = false
    const t = task
    task = null
    if (t) t.close({ code: 1000, fail: () => {} })
  }

  function ended(code, reason) {
    release()
    if (isFinal(code)) {
      started = false
      onState('closed', { code, reason })
      return
    }
    if (hidden) {
      onState('hidden', { code, reason })  // onShow connects again
      return
    }
    const ceiling = Math.min(PAUSE_CAP, PAUSE_FIRST * 2 ** failures++)
    const pause = Math.max(PAUSE_MIN, Math.random() * ceiling)  // full jitter: a crowd must not come back in step
    retryTimer = setTimeout(connect, pause)
    onState('waiting', { code, reason, pause })
  }

  function send(message) {
    if (!open) return false
    task.send({ data: JSON.stringify(message), fail: () => {} })  // a lost connection is told by onClose
    return true
  }

  return {
    // start connects, and stays connected until stop.
    start() {
      started = true
      failures = 0
      connect()
    },

    stop() {
      started = false
      release()
      onState('closed', { code: 1000, reason: 'stopped' })
    },

    // send sends an object as JSON. It is false if there is no connection now.
    send,

    // onHide is for the app's onHide. A socket that is open may stay: the user may be
    // back before WeChat cuts it. But nothing is asked and nothing retried.
    onHide() {
      hidden = true;
      [retryTimer, pingTimer, pongTimer].forEach(clearTimeout)
    },

    // onShow is for the app's onShow. WeChat does not always tell that it has cut the
    // socket, so one that claims to be open has to prove it.
    onShow() {
      const wasHidden = hidden
      hidden = false
      if (!started || !wasHidden) return
      if (open) {
        ping(PONG_ON_SHOW)
      } else {
        failures = 0
        connect()
      }
    },
  }
}

module.exports = { create }
