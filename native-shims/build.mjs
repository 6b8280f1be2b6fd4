console.log("native-shims: nothing to build yet")
